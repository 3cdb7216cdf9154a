"""Which mails should a person look at, before the others?"""

"""Will a flight from New York City arrive more than 15 minutes late?"""

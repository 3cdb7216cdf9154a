"""Which digit is on a handwritten 8 x 8 image?"""

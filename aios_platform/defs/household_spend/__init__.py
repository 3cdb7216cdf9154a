"""How much will a household spend in the next four weeks?"""

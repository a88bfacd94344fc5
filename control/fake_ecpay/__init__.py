"""A server that does what ECPay does, for development and tests: signs, tells again, and lies where it is told to.

Nothing but the command line and tests may know of it.
"""

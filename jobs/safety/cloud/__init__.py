"""Clients of Google's services as filters: one module each, over the HTTP of `client`.

What could not be scored, whatever the reason, has no score and says why. Only what the user has to
change (credentials, permissions, settings) stops the run.
"""

"""The pool size policy: enough workers for the load that is there and predicted."""

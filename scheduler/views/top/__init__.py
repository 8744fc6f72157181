"""`nicety top`: the live view in a terminal, and the same screen of the past.

Everything that is shown is made by pure functions from a frame: lines of pieces, each a text and the name of a style. `app.py`
puts them on a terminal and has the keys; `plain.py` prints them. `following.py` says where frames come from.
"""

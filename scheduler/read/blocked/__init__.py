"""What blocked threads wait for and which processes can help: the parts of `read/waits.py`. Reads only /proc and sock_diag."""

"""What does nicety leave behind when a system call goes wrong?"""

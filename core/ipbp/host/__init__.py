"""What runs inside the debugger, shared by both plugins: Python 3.9, standard library only."""

"""The shell: the control loop, the executor, the guard; everything that touches clocks, sockets and processes."""

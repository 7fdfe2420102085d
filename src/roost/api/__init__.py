"""The few functions that join the rooms. Each module here is one use of the tool."""

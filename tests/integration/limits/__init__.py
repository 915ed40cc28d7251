"""The Lua commands behind limits, against a plain model and one by one."""

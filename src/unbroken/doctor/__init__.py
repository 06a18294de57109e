"""The doctor: where a turn would go, whether that way stands, after how much silence it is cut, and what helps.

A face beside client, transports and relay. It asks no model and sends no prompt: what it does costs nothing.
"""

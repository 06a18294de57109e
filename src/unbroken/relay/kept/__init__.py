"""Turns that outlive their client: kept in a store, and collected by asking again or by position."""

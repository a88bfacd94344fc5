"""From what viewers and buyers did to figures."""

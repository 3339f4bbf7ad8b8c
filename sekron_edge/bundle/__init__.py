"""The deployment bundle: what is in it, how it is packed, and how it is checked again."""

"""What the sheet of a head is made of."""

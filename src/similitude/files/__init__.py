"""Files: what others wrote is read with limits, what we write is whole or not there."""

"""Messages: written rarely (`periodic`), and read where others wrote too many (`analyze`)."""

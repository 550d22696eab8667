"""An env's messages: written rarely (`periodic`), and read where others wrote too many."""

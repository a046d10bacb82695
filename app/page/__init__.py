"""Building blocks shared by the tabs: text, forms, buttons and browser state."""

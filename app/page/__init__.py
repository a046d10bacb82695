"""What every tab is made with: text, forms, buttons, what the browser keeps."""

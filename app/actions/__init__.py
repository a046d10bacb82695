"""The computations of each tab: form values in, view values out. No Gradio here."""

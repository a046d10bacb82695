"""What each tab computes: form values to the engine to view values. No Gradio here."""

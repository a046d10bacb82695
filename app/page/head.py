"""What stands in the page's head: our styles and scripts, all from this server."""

from pathlib import Path

APP = Path(__file__).parents[1]
STYLE = APP / "style"
PAGES_STYLE = STYLE / "pages.css"  # Gradio narrows it to its own container; the rest must reach outside of that
FRAME_STYLES = ("tokens", "shell", "data", "components", "explore", "chat", "train", "runs", "lab", "learn")
SCRIPTS = ("page/browser_state", "page/early", "page/navigation", "widgets/glossary")
TEACHING = """<link rel="stylesheet" href="studio/files/teaching.css">
<script defer src="studio/files/teaching.js"></script>"""  # tour, Present and Class: app/teaching


def head() -> str:
    """The styles of the frame, and the scripts that must be there before any component."""
    styles = "".join(f"<style>{_read(STYLE / f'{name}.css')}</style>" for name in FRAME_STYLES)
    scripts = "".join(f"<script>{_read(APP / f'{name}.js')}</script>" for name in SCRIPTS)
    return styles + scripts + TEACHING


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")

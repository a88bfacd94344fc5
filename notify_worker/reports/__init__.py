"""Daily reports: figures, files and mails."""

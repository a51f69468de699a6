"""The report: one HTML page that shows what a run answered. Others use `page.write_report`."""

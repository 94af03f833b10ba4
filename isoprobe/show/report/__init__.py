"""Write one offline HTML file that explains a result: verdict, figures, table and explorer."""

from __future__ import annotations

from isoprobe.show.report.comparison import compared_page
from isoprobe.show.report.page import render, write
from isoprobe.show.report.trends import trend_page

__all__ = ["compared_page", "render", "trend_page", "write"]

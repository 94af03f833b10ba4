"""Prove what a plugin must obey: named laws run on generated cases.

Each ``check_*`` gives a list of :class:`Law`; calling one raises :class:`LawError` when the plugin
does not obey it. In a test::

    @pytest.mark.parametrize("law", check_metric(MyMetric()), ids=str)
    def test_my_metric(law):
        law()

On the command line: ``isoprobe check metric.NAME``.
"""

from __future__ import annotations

from isoprobe.testing.adapters import check_adapter
from isoprobe.testing.analyses import check_analysis
from isoprobe.testing.architectures import check_architecture
from isoprobe.testing.data_sources import check_data_source
from isoprobe.testing.laws import Law, LawError
from isoprobe.testing.metrics import check_metric

__all__ = [
    "Law",
    "LawError",
    "check_adapter",
    "check_analysis",
    "check_architecture",
    "check_data_source",
    "check_metric",
]

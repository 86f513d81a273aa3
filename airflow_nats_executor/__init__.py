"""The place in which Airflow looks for this provider's example Dags.

With `[core] load_examples` each Airflow process imports, for every provider, a module that it
names after the distribution, and logs an error with a traceback where there is none.
"""

from __future__ import annotations

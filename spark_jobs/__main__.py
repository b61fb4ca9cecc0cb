"""`python -m spark_jobs`."""

from __future__ import annotations

import sys

from spark_jobs.main import main

sys.exit(main())

"""`python -m tega_agent` is `tega-agent`."""

import sys

from tega_agent.main import main

sys.exit(main())

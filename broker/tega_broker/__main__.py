"""`python -m tega_broker` is `tega-broker`."""

import sys

from tega_broker.main import main

sys.exit(main())

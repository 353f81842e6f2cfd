"""`python -m tega_broker.bridge`: as `tega-bridge`."""

import sys

from tega_broker.bridge.main import main

sys.exit(main())

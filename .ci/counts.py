"""Says how many tests reports have: `counts.py REPORT...`. Exit code 1 when none ran."""

import sys
import xml.etree.ElementTree as tree

suites = [suite for report in sys.argv[1:] for suite in tree.parse(report).getroot().iter("testsuite")]
counts = [(int(s.get("tests", 0)), int(s.get("skipped", 0))) for s in suites]
ran = sum(tests - skipped for tests, skipped in counts)
print(f"{ran} tests ran, {sum(skipped for _, skipped in counts)} were skipped")
sys.exit(ran == 0)

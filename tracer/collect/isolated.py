"""Run a module of this package in an isolated interpreter.

``python3 -I isolated.py MODULE ARGUMENTS`` is ``python3 -m MODULE ARGUMENTS`` without the
environment, the user's site folder and the current folder having a say.
"""

import os
import runpy
import sys

package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# A copy under the package's own name is the one to run; a checkout is installed.
if os.path.basename(package) == "zctrace":
    sys.path.insert(0, os.path.dirname(package))
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)

"""`lmia audit`: was this set of pictures used to tune this model? Request -> artifacts -> verdict -> report.

`request` says what was asked and checks it, `plan` turns it into artifacts of the same store and engine that benchmarks
use, `result` reads the scores back and has them judged, `report` writes what a person reads.
"""

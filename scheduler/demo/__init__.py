"""`nicety demo`: a bundled real workload, and the report on what nicety did to it."""

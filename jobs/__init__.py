"""What runs on Ray: the rooms of a job, from where its images lie to the report that it leaves."""

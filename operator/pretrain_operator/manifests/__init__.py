"""Whole desired objects of a run, as functions of (run, configuration, status, settings). Pure.

metadata    labels, owner, digests: what every child has
templates   a run's pod overrides over the administrator's
pods        the parts that all pods share
jobs        the parts that all Jobs share
storage     the claim, if the run asks for one
inputs      the ConfigMap with run.json, and the digests of what a Job is made from
training    coordinator, Indexed Job, headless Services
later       Data, Export and PostTraining Jobs
serving     vLLM Deployment and Service
"""

"""`python -m course_lib.experiments NAME`: see runner.py."""

from course_lib.experiments.runner import main

if __name__ == "__main__":
    main()

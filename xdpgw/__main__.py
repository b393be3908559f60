"""python -m xdpgw."""

from xdpgw.cli import main

if __name__ == "__main__":
    main()

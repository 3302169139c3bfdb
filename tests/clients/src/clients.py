"""Python's clients: clients.py URL FILE CLIENT."""
import asyncio
import sys

URL, FILE, CLIENT = sys.argv[1:]
DATA = open(FILE, "rb").read()
UTF8 = "käse 1.png"
FORMS = {
    "requests": ("dot.png", DATA),
    "requests_typed": ("dot.png", DATA, "image/png"),
    "requests_utf8": (UTF8, DATA),
    "requests_utf8_typed": (UTF8, DATA, "image/png"),
}


async def aiohttp_form(name):
    import aiohttp

    form = aiohttp.FormData()
    form.add_field("note", "hi")
    form.add_field("file", DATA, filename=name, content_type="image/png")
    async with aiohttp.ClientSession() as session:
        await session.post(URL, data=form)


if CLIENT in FORMS:
    import requests

    requests.post(URL, data={"note": "hi"}, files={"file": FORMS[CLIENT]})
elif CLIENT == "httpx":
    import httpx

    httpx.post(URL, data={"note": "hi"}, files={"file": ("dot.png", DATA, "image/png")})
elif CLIENT == "httpx_utf8":
    import httpx

    httpx.post(URL, data={"note": "hi"}, files={"file": (UTF8, DATA, "image/png")})
elif CLIENT == "urllib3":
    import urllib3

    urllib3.request("POST", URL, fields={"note": "hi", "file": (UTF8, DATA)})
else:
    asyncio.run(aiohttp_form(UTF8 if CLIENT == "aiohttp_utf8" else "dot.png"))

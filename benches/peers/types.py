#!/usr/bin/env python3
"""Files of known types, to measure how well types are told.

    python3 benches/peers/types.py FOLDER
    cargo run --release --bin upload -- types FOLDER /usr/share      (in benches/peers)

Writes to FOLDER/made what writers from PyPI make of noise (Pillow, pillow-heif, ffmpeg, py7zr,
python-docx, openpyxl, XlsxWriter, python-pptx, odfpy, fpdf2), and unpacks into FOLDER/found the
sources of packages that read such files and bring their own to test with, broken ones among them.
"""

import bz2
import csv
import gzip
import io
import lzma
import os
import random
import subprocess
import sys
import tarfile
import venv
import zipfile

WRITERS = [
    "fpdf2", "imageio-ffmpeg", "odfpy", "openpyxl", "pillow", "pillow-heif", "py7zr",
    "python-docx", "python-pptx", "xlsxwriter", "zstandard",
]
READERS = [
    "filetype", "hachoir", "mutagen", "odfpy", "openpyxl", "pdfminer.six", "pillow-heif",
    "puremagic", "py7zr", "python-docx", "python-pptx", "tinytag",
]


def main():
    folder = os.path.abspath(sys.argv[1])
    python = os.path.join(folder, "venv/bin/python")
    if not os.path.exists(python):
        venv.create(os.path.join(folder, "venv"), with_pip=True)
        subprocess.check_call([python, "-m", "pip", "install", "-q", *WRITERS])
    if sys.prefix == os.path.join(folder, "venv"):
        return make(os.path.join(folder, "made"))
    subprocess.check_call([python, os.path.abspath(__file__), folder])
    find(python, os.path.join(folder, "found"))


def find(python, folder):
    os.makedirs(folder, exist_ok=True)
    sources = ["download", "-q", "--no-deps", "--no-binary", ":all:", "-d", folder]
    for package in READERS:
        subprocess.run([python, "-m", "pip", *sources, package], check=False)
    for name in os.listdir(folder):
        if name.endswith(".tar.gz"):
            with tarfile.open(os.path.join(folder, name)) as source:
                source.extractall(folder, filter="data")


def make(folder):
    import docx
    import imageio_ffmpeg
    import openpyxl
    import pillow_heif
    import pptx
    import py7zr
    import xlsxwriter
    import zstandard
    from fpdf import FPDF
    from odf import draw, style
    from odf.opendocument import (
        OpenDocumentPresentation, OpenDocumentSpreadsheet, OpenDocumentText,
    )
    from odf.table import Table, TableCell, TableRow
    from odf.text import P
    from PIL import Image

    pillow_heif.register_heif_opener()
    os.makedirs(folder, exist_ok=True)
    random.seed(7)
    made = 0

    def path(extension):
        nonlocal made
        made += 1
        return f"{folder}/{made:04}.{extension}"

    def image(width, height):
        noise = Image.effect_noise((width, height), 60)
        line = Image.linear_gradient("L").resize((width, height))
        circle = Image.radial_gradient("L").resize((width, height))
        return Image.merge("RGB", (noise, line, circle))

    def picture(kind):
        held = io.BytesIO()
        image(60, 60).save(held, kind)
        held.seek(0)
        return held

    for round_ in range(25):
        width, height = random.choice([(16, 16), (64, 48), (300, 200), (1200, 800)])
        for extension, how in [
            ("png", {}), ("png", {"optimize": True}), ("jpg", {"quality": 40}),
            ("jpg", {"progressive": True}), ("webp", {}), ("webp", {"lossless": True}),
            ("gif", {}), ("tiff", {}), ("tiff", {"compression": "tiff_lzw"}), ("avif", {}),
            ("heic", {"format": "HEIF"}), ("ico", {"sizes": [(16, 16), (32, 32)]}),
        ]:
            if extension == "gif" and round_ % 3 == 0:
                more = [image(width, height) for _ in range(3)]
                how = {"save_all": True, "append_images": more}
            image(width, height).save(path(extension), **how)

    def encode(extension, *arguments):
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *arguments]
        subprocess.check_call([*command, path(extension)], stdin=subprocess.DEVNULL)

    for round_ in range(6):
        sound = ["-f", "lavfi", "-i", f"sine=frequency={200 + round_ * 50}:duration=1"]
        film = ["-f", "lavfi", "-i", "testsrc=duration=1:size=160x120:rate=10", *sound]
        title = ["-metadata", f"title={round_}"] if round_ % 2 else []
        for extension, how in [
            ("mp3", []), ("mp3", ["-id3v2_version", "0", "-write_id3v1", "1"]),
            ("mp3", ["-q:a", "9", "-write_xing", "0"]), ("ogg", ["-c:a", "libvorbis"]),
            ("ogg", ["-c:a", "libopus"]), ("oga", ["-c:a", "flac"]), ("flac", []), ("wav", []),
            ("wav", ["-c:a", "pcm_s24le"]), ("m4a", ["-c:a", "aac"]), ("m4a", ["-c:a", "alac"]),
        ]:
            encode(extension, *sound, *title, *how)
        for extension, how in [
            ("mp4", ["-c:v", "libx264"]), ("mp4", ["-c:v", "mpeg4", "-movflags", "+faststart"]),
            ("mp4", ["-movflags", "frag_keyframe+empty_moov"]), ("m4v", ["-c:v", "libx264"]),
            ("webm", ["-c:v", "libvpx", "-c:a", "libvorbis"]), ("webm", ["-c:v", "libvpx-vp9"]),
            ("mkv", ["-c:v", "libx264"]), ("mkv", ["-c:v", "ffv1", "-c:a", "flac"]),
            ("mov", ["-c:v", "libx264"]), ("mov", ["-c:v", "mjpeg"]),
        ]:
            encode(extension, *film, *title, *how)

    for round_ in range(40):
        text = bytes(random.choices(b"some words\n", k=50 + 40 * round_))
        with open(path("txt"), "wb") as plain:
            plain.write(text)
        for extension, pack in [
            ("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress),
            ("zst", zstandard.compress),
        ]:
            with open(path(extension), "wb") as packed:
                packed.write(pack(text))
        method = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED][round_ % 2]
        with zipfile.ZipFile(path("zip"), "w", method) as packed:
            packed.writestr("a.txt", text)
        with tarfile.open(path("tgz"), "w:gz") as packed:
            packed.add(plain.name, arcname="a.txt")
        if round_ < 12:
            for how in [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]:
                with tarfile.open(path("tar"), "w", format=how) as packed:
                    packed.add(plain.name, arcname="x/a.txt")
            old = ["tar", "--format=v7", "-cf", path("tar"), "-C", folder]
            subprocess.check_call([*old, os.path.basename(plain.name)])
            with py7zr.SevenZipFile(path("7z"), "w") as packed:
                packed.writestr(text, "a.txt")

    for round_ in range(15):
        document = docx.Document()
        document.add_heading("heading")
        document.add_table(2, 2)
        if round_ % 3 == 0:
            document.add_picture(picture("PNG"))
        document.save(path("docx"))
        book = openpyxl.Workbook()
        book.active.append(list(range(round_ + 1)))
        book.save(path("xlsx"))
        book = xlsxwriter.Workbook(path("xlsx"))
        book.add_worksheet().write(0, 0, round_)
        book.close()
        slides = pptx.Presentation()
        slides.slides.add_slide(slides.slide_layouts[round_ % 5])
        slides.save(path("pptx"))
    for round_ in range(8):
        text = OpenDocumentText()
        text.text.addElement(P(text="x" * round_))
        text.save(path("odt"))
        book = OpenDocumentSpreadsheet()
        table, row, cell = Table(name="a"), TableRow(), TableCell()
        cell.addElement(P(text=str(round_)))
        row.addElement(cell)
        table.addElement(row)
        book.spreadsheet.addElement(table)
        book.save(path("ods"))
        slides = OpenDocumentPresentation()
        layout = style.PageLayout(name="layout")
        slides.automaticstyles.addElement(layout)
        slides.masterstyles.addElement(style.MasterPage(name="master", pagelayoutname=layout))
        slides.presentation.addElement(draw.Page(masterpagename="master"))
        slides.save(path("odp"))
    for round_ in range(25):
        page = FPDF()
        page.add_page()
        page.set_font("helvetica", size=12)
        page.multi_cell(0, 10, "hello " * (round_ + 1))
        if round_ % 2:
            page.image(picture("JPEG"))
        page.output(path("pdf"))
        with open(path("csv"), "w", newline="") as table:
            rows = [[random.random(), "käse, \"x\""] for _ in range(round_ + 1)]
            csv.writer(table).writerows(rows)


main()

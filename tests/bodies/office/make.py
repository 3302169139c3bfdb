#!/usr/bin/env python3
"""Makes the documents beside it, with LibreOffice and the Python libraries for Office files.

    apt-get install libreoffice-writer-nogui libreoffice-calc-nogui libreoffice-impress-nogui
    python3 -m venv V && V/bin/pip install python-docx openpyxl python-pptx xlsxwriter
    V/bin/python make.py
"""
import pathlib
import subprocess
import tempfile
import zipfile

import docx
import openpyxl
import pptx
import xlsxwriter

HERE = pathlib.Path(__file__).parent.resolve()
CONVERSIONS = {
    "text.txt": ["odt", "ott", "docx", "dotx", "docm:MS Word 2007 XML VBA"],
    "table.csv": ["ods", "ots", "xlsx", "xltx", "xlsm:Calc MS Excel 2007 VBA XML"],
    "slides.fodp": ["odp", "otp", "pptx", "potx", "pptm:Impress MS PowerPoint 2007 XML VBA"],
}
SLIDES = """<?xml version="1.0" encoding="UTF-8"?>
<office:document xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
 xmlns:draw="urn:oasis:names:tc:opendocument:xmlns:drawing:1.0" office:version="1.3"
 office:mimetype="application/vnd.oasis.opendocument.presentation">
<office:body><office:presentation><draw:page draw:name="one"/></office:presentation></office:body></office:document>
"""
# As LibreOffice keeps a module of Basic in a document.
BASIC = {
    "Basic/script-lc.xml": '<library:libraries xmlns:library="http://openoffice.org/2000/library"><library:library library:name="Standard" library:link="false"/></library:libraries>',
    "Basic/Standard/script-lb.xml": '<library:library xmlns:library="http://openoffice.org/2000/library" library:name="Standard"><library:element library:name="Module1"/></library:library>',
    "Basic/Standard/Module1.xml": '<script:module xmlns:script="http://openoffice.org/2000/script" script:name="Module1" script:language="StarBasic">Sub Main\nEnd Sub</script:module>',
}


def main():
    document = docx.Document()
    document.add_paragraph("words")
    document.save(HERE / "python_docx.docx")
    table = openpyxl.Workbook()
    table.active["A1"] = 1
    table.save(HERE / "openpyxl.xlsx")
    slides = pptx.Presentation()
    slides.slides.add_slide(slides.slide_layouts[6])
    slides.save(HERE / "python_pptx.pptx")
    table = xlsxwriter.Workbook(HERE / "xlsxwriter.xlsx")
    table.add_worksheet().write(0, 0, 1)
    table.close()
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        (work / "text.txt").write_text("words\n")
        (work / "table.csv").write_text("a,b\n1,2\n")
        (work / "slides.fodp").write_text(SLIDES)
        for source, kinds in CONVERSIONS.items():
            for kind in kinds:
                command = ["soffice", f"-env:UserInstallation=file://{work}/profile", "--headless", "--convert-to", kind, "--outdir", HERE, work / source]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with zipfile.ZipFile(HERE / "text.odt") as text, zipfile.ZipFile(HERE / "basic.odt", "w") as basic:
        for entry in text.infolist():
            basic.writestr(entry, text.read(entry))
        for name, module in BASIC.items():
            basic.writestr(name, module)


main()

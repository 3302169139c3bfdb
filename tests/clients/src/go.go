// Go's mime/multipart, as net/http's users call it.
package main

import (
	"bytes"
	"mime/multipart"
	"net/http"
	"os"
)

func main() {
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	form.WriteField("note", "hi")
	part, _ := form.CreateFormFile("file", "käse 1.png")
	file, _ := os.ReadFile(os.Args[2])
	part.Write(file)
	form.Close()
	http.Post(os.Args[1], form.FormDataContentType(), &body)
}

using System.IO;
using System.Net.Http;
using System.Net.Http.Headers;

/// System.Net.Http's form, in the class library that Mono ships.
class DotNet {
    static void Main(string[] arguments) {
        var form = new MultipartFormDataContent();
        form.Add(new StringContent("hi"), "note");
        var file = new StreamContent(File.OpenRead(arguments[1]));
        file.Headers.ContentType = new MediaTypeHeaderValue("image/png");
        form.Add(file, "file", arguments[2]);
        new HttpClient().PostAsync(arguments[0], form).Wait();
    }
}

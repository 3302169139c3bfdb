import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;

/** The JDK's client has no forms: this is the publisher that its users write, without a length. */
class JdkHttpClient {
    public static void main(String[] arguments) throws Exception {
        var boundary = "b0f9a1c2d3e4f5061728394a5b6c7d8e";
        var file = Path.of(arguments[1]);
        var parts = new ArrayList<byte[]>();
        parts.add(("--" + boundary + "\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nhi\r\n").getBytes());
        parts.add(("--" + boundary + "\r\nContent-Disposition: form-data; name=\"file\"; filename=\""
            + file.getFileName() + "\"\r\nContent-Type: " + Files.probeContentType(file) + "\r\n\r\n").getBytes());
        parts.add(Files.readAllBytes(file));
        parts.add(("\r\n--" + boundary + "--\r\n").getBytes());
        var request = HttpRequest.newBuilder(URI.create(arguments[0]))
            .version(HttpClient.Version.HTTP_1_1)
            .header("Content-Type", "multipart/form-data;boundary=\"" + boundary + "\"")
            .POST(BodyPublishers.ofByteArrays(parts))
            .build();
        HttpClient.newHttpClient().send(request, BodyHandlers.discarding());
    }
}

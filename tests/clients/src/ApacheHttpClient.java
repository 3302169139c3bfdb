import java.io.File;
import java.nio.charset.StandardCharsets;
import org.apache.http.client.methods.HttpPost;
import org.apache.http.entity.ContentType;
import org.apache.http.entity.mime.HttpMultipartMode;
import org.apache.http.entity.mime.MultipartEntityBuilder;
import org.apache.http.impl.client.HttpClients;

/** Apache HttpClient's form: in its strict mode, or as browsers write. */
class ApacheHttpClient {
    public static void main(String[] arguments) throws Exception {
        var builder = MultipartEntityBuilder.create();
        if (arguments[2].equals("browser")) {
            builder.setMode(HttpMultipartMode.BROWSER_COMPATIBLE).setCharset(StandardCharsets.UTF_8);
        }
        var name = arguments[2].equals("browser") ? "käse 1.png" : "dot.png";
        builder.addTextBody("note", "hi");
        builder.addBinaryBody("file", new File(arguments[1]), ContentType.IMAGE_PNG, name);
        var post = new HttpPost(arguments[0]);
        post.setEntity(builder.build());
        HttpClients.createDefault().execute(post);
    }
}

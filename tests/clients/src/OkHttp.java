import java.io.File;
import okhttp3.MediaType;
import okhttp3.MultipartBody;
import okhttp3.OkHttpClient;
import okhttp3.Request;
import okhttp3.RequestBody;

/** OkHttp's form, as Android's and Retrofit's users send it. */
class OkHttp {
    public static void main(String[] arguments) throws Exception {
        var file = RequestBody.create(MediaType.get("image/png"), new File(arguments[1]));
        var body = new MultipartBody.Builder()
            .setType(MultipartBody.FORM)
            .addFormDataPart("note", "hi")
            .addFormDataPart("file", "käse 1.png", file)
            .build();
        var request = new Request.Builder().url(arguments[0]).post(body).build();
        new OkHttpClient().newCall(request).execute().close();
        System.exit(0);
    }
}

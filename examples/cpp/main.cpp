// People and their poses in a picture or from a webcam, with the networks that `posecli export` writes, in OpenCV DNN.
//
//   poses person.onnx pose.onnx photo.jpg [annotated.jpg]     one line of JSON for each person
//   poses person.onnx pose.onnx 0                             webcam 0, until a key is pressed
//
// POSES_BACKEND=cuda runs the networks on an NVIDIA GPU, where OpenCV was built for it.

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <iomanip>
#include <iostream>
#include <string>
#include <vector>

#include <opencv2/dnn.hpp>
#include <opencv2/highgui.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <opencv2/videoio.hpp>

namespace {

// As in the metadata of the exported files, which OpenCV does not read.
const cv::Scalar MEAN(123.675, 116.28, 103.53), STD(58.395, 57.12, 57.375);  // levels, RGB
const cv::Size DETECTOR_SIZE(448, 448), POSE_SIZE(192, 256);
constexpr int GREY = 114;
constexpr float SCORE_THRESHOLD = 0.5f, NMS_IOU = 0.5f;
constexpr double PADDING = 1.25;
constexpr double SPLIT_RATIO = 2, SIGMA = 6;  // bins a pixel; standard deviation of the labels in bins

// The 19 limbs of COCO's 17 keypoints.
const std::vector<std::pair<int, int>> LIMBS = {
    {15, 13}, {13, 11}, {16, 14}, {14, 12}, {11, 12}, {5, 11}, {6, 12}, {5, 6}, {5, 7}, {6, 8},
    {7, 9},   {8, 10},  {1, 2},   {0, 1},   {0, 2},   {1, 3},  {2, 4},  {3, 5}, {4, 6}};

struct Keypoint {
    cv::Point2d at;  // source pixels, pixel centres at integers
    double score;
};

struct Person {
    cv::Rect2d box;
    float score;
    std::vector<Keypoint> keypoints;
};

// Levels in BGR, as OpenCV reads them, to the normalised planes (1, 3, H, W) in RGB.
cv::Mat planes(const cv::Mat& image) {
    cv::Mat rgb;
    cv::cvtColor(image, rgb, cv::COLOR_BGR2RGB);
    rgb.convertTo(rgb, CV_32F);
    cv::subtract(rgb, MEAN, rgb);
    cv::divide(rgb, STD, rgb);
    return cv::dnn::blobFromImage(rgb);
}

std::vector<Person> detect(cv::dnn::Net& net, const cv::Mat& image) {
    // Scaled to fit into the top left corner.
    const double scale = std::min(double(DETECTOR_SIZE.height) / image.rows, double(DETECTOR_SIZE.width) / image.cols);
    const cv::Size fitted(std::min(DETECTOR_SIZE.width, std::max(1, cvRound(image.cols * scale))),
                          std::min(DETECTOR_SIZE.height, std::max(1, cvRound(image.rows * scale))));
    cv::Mat canvas(DETECTOR_SIZE, CV_8UC3, cv::Scalar::all(GREY));
    cv::Mat corner = canvas(cv::Rect(cv::Point(0, 0), fitted));
    cv::resize(image, corner, fitted, 0, 0, image.rows > fitted.height ? cv::INTER_AREA : cv::INTER_LINEAR);
    const double sx = double(fitted.width) / image.cols, sy = double(fitted.height) / image.rows;

    net.setInput(planes(canvas));
    std::vector<cv::Mat> outputs;
    net.forward(outputs, std::vector<cv::String>{"boxes", "scores"});
    const cv::Mat corners(outputs[1].total(), 4, CV_32F, outputs[0].ptr<float>());  // x1 y1 x2 y2 in the canvas
    const float* scores = outputs[1].ptr<float>();

    std::vector<cv::Rect2d> boxes;
    std::vector<float> good;
    for (int i = 0; i < corners.rows; ++i) {
        if (scores[i] < SCORE_THRESHOLD) continue;
        const float* c = corners.ptr<float>(i);
        const cv::Point2d first(std::clamp(c[0] / sx, 0.0, double(image.cols)), std::clamp(c[1] / sy, 0.0, double(image.rows)));
        const cv::Point2d last(std::clamp(c[2] / sx, 0.0, double(image.cols)), std::clamp(c[3] / sy, 0.0, double(image.rows)));
        if (last.x - first.x < 1 || last.y - first.y < 1) continue;
        boxes.emplace_back(first, last);
        good.push_back(scores[i]);
    }
    std::vector<int> kept;
    cv::dnn::NMSBoxes(boxes, good, SCORE_THRESHOLD, NMS_IOU, kept);
    std::vector<Person> people;
    for (const int i : kept) people.push_back({boxes[i], good[i], {}});
    return people;
}

// Position in bins and score of one keypoint on one axis, from its logits.
std::pair<double, double> decode(const float* logits, int bins) {
    const int peak = int(std::max_element(logits, logits + bins) - logits);
    double sum = 0;
    for (int i = 0; i < bins; ++i) sum += std::exp(double(logits[i]) - logits[peak]);
    // The vertex of a parabola fitted to the logarithms within 1.5 standard deviations of the peak, by weighted least
    // squares: normal equations and Cramer's rule.
    const int reach = int(std::lround(1.5 * SIGMA));
    std::array<double, 5> m{};  // sums of weight · t^i
    std::array<double, 3> v{};  // and with the values
    for (int t = std::max(-reach, -peak); t <= std::min(reach, bins - 1 - peak); ++t) {
        const double value = double(logits[peak + t]) - logits[peak];
        double term = std::exp(0.5 * value);
        for (int i = 0; i < 5; ++i, term *= t) {
            m[i] += term;
            if (i < 3) v[i] += term * value;
        }
    }
    const double determinant = m[4] * (m[2] * m[0] - m[1] * m[1]) - m[3] * (m[3] * m[0] - m[1] * m[2]) +
                               m[2] * (m[3] * m[1] - m[2] * m[2]);
    const double a = v[2] * (m[2] * m[0] - m[1] * m[1]) - m[3] * (v[1] * m[0] - m[1] * v[0]) +
                     m[2] * (v[1] * m[1] - m[2] * v[0]);
    const double b = m[4] * (v[1] * m[0] - v[0] * m[1]) - v[2] * (m[3] * m[0] - m[1] * m[2]) +
                     m[2] * (m[3] * v[0] - v[1] * m[2]);
    double offset = determinant > 1e-9 && a < 0 ? -b / (2 * a) : 0;
    if (std::abs(offset) > reach) offset = 0;
    return {peak + offset, std::min(1.0, SIGMA * std::sqrt(2 * CV_PI) / sum)};
}

void estimate(cv::dnn::Net& net, const cv::Mat& image, Person& person) {
    // The padded box, enlarged to the crop's shape, fills the crop.
    const cv::Rect2d& box = person.box;
    const double aspect = double(POSE_SIZE.width) / POSE_SIZE.height;
    const double height = std::max(box.height, box.width / aspect) * PADDING, width = height * aspect;
    const cv::Point2d centre(box.x + box.width / 2, box.y + box.height / 2);
    const double scale = POSE_SIZE.height / height;
    const cv::Matx23d matrix(scale, 0, (width / 2 - centre.x) * scale, 0, scale, (height / 2 - centre.y) * scale);
    // An image that is reduced to half or less is halved by averaging first, against aliasing.
    cv::Mat crop, source = image;
    cv::Matx23d warp = matrix;
    while (warp(0, 0) <= 0.5 && std::min(source.rows, source.cols) > 1) {
        const cv::Size half(source.cols / 2, source.rows / 2);
        cv::Mat smaller;
        cv::resize(source(cv::Rect(0, 0, half.width * 2, half.height * 2)), smaller, half, 0, 0, cv::INTER_AREA);
        source = smaller;
        // Pixel i of the halved image is at 2i + 1/2 of the image before.
        for (int axis = 0; axis < 2; ++axis) warp(axis, 2) += warp(axis, axis) / 2;
        warp(0, 0) *= 2;
        warp(1, 1) *= 2;
    }
    cv::warpAffine(source, crop, warp, POSE_SIZE, cv::INTER_LINEAR);

    net.setInput(planes(crop));
    std::vector<cv::Mat> outputs;
    net.forward(outputs, std::vector<cv::String>{"simcc_x", "simcc_y"});
    for (int k = 0; k < outputs[0].size[1]; ++k) {
        const auto [x, x_score] = decode(outputs[0].ptr<float>(0, k), outputs[0].size[2]);
        const auto [y, y_score] = decode(outputs[1].ptr<float>(0, k), outputs[1].size[2]);
        const cv::Point2d in_crop(x / SPLIT_RATIO, y / SPLIT_RATIO);
        const cv::Point2d at((in_crop.x - matrix(0, 2)) / scale, (in_crop.y - matrix(1, 2)) / scale);
        person.keypoints.push_back({at, std::min(x_score, y_score)});
    }
}

void draw(cv::Mat& image, const Person& person) {
    cv::rectangle(image, person.box, cv::Scalar(180, 180, 180), 1, cv::LINE_AA);
    for (const auto& [a, b] : LIMBS) {
        const Keypoint &from = person.keypoints[a], &to = person.keypoints[b];
        if (std::min(from.score, to.score) > 0.3) cv::line(image, from.at, to.at, cv::Scalar(60, 200, 60), 2, cv::LINE_AA);
    }
    for (const Keypoint& keypoint : person.keypoints)
        if (keypoint.score > 0.3) cv::circle(image, keypoint.at, 3, cv::Scalar(40, 40, 230), cv::FILLED, cv::LINE_AA);
}

void print(const Person& person) {
    const cv::Rect2d& box = person.box;
    std::cout << std::fixed << std::setprecision(3) << "{\"bbox\": [" << box.x << ", " << box.y << ", " << box.width << ", "
              << box.height << "], \"score\": " << person.score << ", \"keypoints\": [";
    for (std::size_t k = 0; k < person.keypoints.size(); ++k) {
        const Keypoint& keypoint = person.keypoints[k];
        std::cout << (k ? ", " : "") << keypoint.at.x << ", " << keypoint.at.y << ", " << keypoint.score;
    }
    std::cout << "]}\n";
}

std::vector<Person> predict(cv::dnn::Net& detector, cv::dnn::Net& pose, const cv::Mat& image) {
    std::vector<Person> people = detect(detector, image);
    for (Person& person : people) estimate(pose, image, person);
    return people;
}

int photo(cv::dnn::Net& detector, cv::dnn::Net& pose, const std::string& path, const char* out) {
    cv::Mat image = cv::imread(path);
    if (image.empty()) {
        std::cerr << path << ": not a picture that OpenCV can read\n";
        return 1;
    }
    for (const Person& person : predict(detector, pose, image)) {
        print(person);
        draw(image, person);
    }
    if (out != nullptr && !cv::imwrite(out, image)) {
        std::cerr << out << ": cannot be written\n";
        return 1;
    }
    return 0;
}

int webcam(cv::dnn::Net& detector, cv::dnn::Net& pose, int number) {
    cv::VideoCapture camera(number);
    cv::Mat image;
    if (!camera.isOpened()) {
        std::cerr << "webcam " << number << ": cannot be opened\n";
        return 1;
    }
    while (camera.read(image) && cv::waitKey(1) < 0) {
        for (const Person& person : predict(detector, pose, image)) draw(image, person);
        cv::imshow("poses", image);
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 4 || argc > 5) {
        std::cerr << "usage: poses person.onnx pose.onnx photo.jpg|WEBCAM [annotated.jpg]\n";
        return 2;
    }
    try {
        std::array<cv::dnn::Net, 2> nets = {cv::dnn::readNetFromONNX(argv[1]), cv::dnn::readNetFromONNX(argv[2])};
        const char* backend = std::getenv("POSES_BACKEND");
        for (cv::dnn::Net& net : nets) {
            if (backend == nullptr || std::string(backend) != "cuda") continue;
            net.setPreferableBackend(cv::dnn::DNN_BACKEND_CUDA);
            net.setPreferableTarget(cv::dnn::DNN_TARGET_CUDA_FP16);
        }
        const std::string input = argv[3];
        const bool digits = std::all_of(input.begin(), input.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
        if (digits && input.size() < 4) return webcam(nets[0], nets[1], std::stoi(input));
        return photo(nets[0], nets[1], input, argc > 4 ? argv[4] : nullptr);
    } catch (const cv::Exception& error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
}
